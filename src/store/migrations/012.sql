-- SPDX-License-Identifier: Apache-2.0
-- 012 - whose the saved logs are, and how much each team has of them: one that saves much loses its own

ALTER TABLE sandbox_logs ADD COLUMN team_id TEXT NOT NULL DEFAULT '';
UPDATE sandbox_logs SET team_id = COALESCE((SELECT team_id FROM sandboxes WHERE id = sandbox_id), '');
CREATE INDEX sandbox_logs_team ON sandbox_logs(team_id, seq);

CREATE TABLE sandbox_logs_teams (
	team_id TEXT PRIMARY KEY,
	bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sandbox_logs_teams_most ON sandbox_logs_teams(bytes);
INSERT INTO sandbox_logs_teams (team_id, bytes) SELECT team_id, SUM(size) FROM sandbox_logs GROUP BY team_id;
CREATE TRIGGER sandbox_logs_team_more AFTER INSERT ON sandbox_logs BEGIN
	INSERT INTO sandbox_logs_teams (team_id, bytes) VALUES (NEW.team_id, NEW.size)
		ON CONFLICT (team_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER sandbox_logs_team_other AFTER UPDATE OF size ON sandbox_logs BEGIN
	UPDATE sandbox_logs_teams SET bytes = bytes + NEW.size - OLD.size WHERE team_id = NEW.team_id;
END;
CREATE TRIGGER sandbox_logs_team_less AFTER DELETE ON sandbox_logs BEGIN
	UPDATE sandbox_logs_teams SET bytes = bytes - OLD.size WHERE team_id = OLD.team_id;
	DELETE FROM sandbox_logs_teams WHERE team_id = OLD.team_id AND bytes <= 0;
END;
