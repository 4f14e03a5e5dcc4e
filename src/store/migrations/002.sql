-- SPDX-License-Identifier: Apache-2.0
-- 002 - what a sandbox carries besides its sizes: tags, what idleness does to it, internet, open ports
--
-- tags and public_ports are JSON arrays. idle_delete 0: when its inactivity timeout is over a sandbox
-- is paused. Those that exist were promised to be deleted, and keep that.

ALTER TABLE sandboxes ADD COLUMN idle_delete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN auto_resume INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN internet INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN paused_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE sandboxes ADD COLUMN public_ports TEXT NOT NULL DEFAULT '[]';
UPDATE sandboxes SET idle_delete = 1 WHERE idle_timeout_ms > 0;
