-- SPDX-License-Identifier: Apache-2.0
-- 010 - main commands of sandboxes, their logs, and stops that give them time
--
-- main is a JSON object ("command", "workdir", "user", "on_exit"), or empty: the sandbox has none. stop_ms is
-- when a stop that was asked for ends it at the latest; 0: none is under way. A saved log is a row of entries
-- of src/proto/mainlog.h.

ALTER TABLE sandboxes ADD COLUMN main TEXT NOT NULL DEFAULT '';
ALTER TABLE sandboxes ADD COLUMN main_state TEXT NOT NULL DEFAULT '';
ALTER TABLE sandboxes ADD COLUMN main_pid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN main_exit_code INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN main_signal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN main_started_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN main_finished_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN stop_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN stop_snapshot TEXT NOT NULL DEFAULT '';
ALTER TABLE sandboxes ADD COLUMN stop_by TEXT NOT NULL DEFAULT '';

CREATE TABLE sandbox_logs (
	seq INTEGER PRIMARY KEY,
	sandbox_id TEXT NOT NULL UNIQUE,
	size INTEGER NOT NULL,
	log BLOB NOT NULL
) STRICT;
CREATE INDEX sandbox_logs_size ON sandbox_logs(seq, size);
CREATE TRIGGER sandbox_logs_forget AFTER DELETE ON sandboxes BEGIN
	DELETE FROM sandbox_logs WHERE sandbox_id = OLD.id;
END;
