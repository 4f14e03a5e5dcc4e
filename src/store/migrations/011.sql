-- SPDX-License-Identifier: Apache-2.0
-- 011 - the size of all saved logs, kept as they come and go: nothing adds them up anew for each

DROP INDEX sandbox_logs_size;
CREATE TABLE sandbox_logs_total (
	only INTEGER PRIMARY KEY CHECK (only = 1),
	bytes INTEGER NOT NULL
) STRICT;
INSERT INTO sandbox_logs_total (only, bytes) SELECT 1, COALESCE(SUM(size), 0) FROM sandbox_logs;
CREATE TRIGGER sandbox_logs_more AFTER INSERT ON sandbox_logs BEGIN
	UPDATE sandbox_logs_total SET bytes = bytes + NEW.size WHERE only = 1;
END;
CREATE TRIGGER sandbox_logs_other AFTER UPDATE OF size ON sandbox_logs BEGIN
	UPDATE sandbox_logs_total SET bytes = bytes + NEW.size - OLD.size WHERE only = 1;
END;
CREATE TRIGGER sandbox_logs_less AFTER DELETE ON sandbox_logs BEGIN
	UPDATE sandbox_logs_total SET bytes = bytes - OLD.size WHERE only = 1;
END;
