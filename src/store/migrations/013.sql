-- SPDX-License-Identifier: Apache-2.0
-- 013 - isolations: templates that hold the memory of a machine, and sandboxes that go back to one
--
-- saved_*: the shape of the machine whose memory a template holds; 0: it holds a disk only. prefers: the
-- isolation of sandboxes that do not ask for one; empty: this Aviary's default. rollback_from: the template
-- that a sandbox stood on, while it is being made again from another one; else empty.

ALTER TABLE templates ADD COLUMN saved_vcpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE templates ADD COLUMN saved_memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE templates ADD COLUMN prefers TEXT NOT NULL DEFAULT '';
ALTER TABLE sandboxes ADD COLUMN rollback_from TEXT NOT NULL DEFAULT '';
