-- SPDX-License-Identifier: Apache-2.0
-- 005 - history in pages: in the order of (created_ms, id), also when there are 100,000 of them
--
-- What is known of the use of a sandbox goes with its record.

DROP INDEX sandboxes_history;
CREATE INDEX sandboxes_history ON sandboxes(team_id, created_ms, id) WHERE final = 1;
CREATE TRIGGER sandboxes_forget AFTER DELETE ON sandboxes BEGIN
	DELETE FROM sandbox_points WHERE sandbox_id = OLD.id;
END;
