-- SPDX-License-Identifier: Apache-2.0
-- 007 - the audit log
--
-- seq is the time in milliseconds since 1970 times 2^20, and what makes it unique: rows are written, read
-- and forgotten in its order. Names stand here as they were; no row refers to another table, so
-- that records outlive users, keys and teams. status: 0 success, 1 failure, 2 unknown.

CREATE TABLE audit_log (
	seq INTEGER PRIMARY KEY,
	team_id TEXT NOT NULL,
	admin INTEGER NOT NULL,
	status INTEGER NOT NULL,
	http_status INTEGER NOT NULL,
	code TEXT NOT NULL,
	action TEXT NOT NULL,
	resource_id TEXT NOT NULL,
	actor_type TEXT NOT NULL,
	actor_id TEXT NOT NULL,
	actor_name TEXT NOT NULL,
	user_id TEXT NOT NULL,
	user_name TEXT NOT NULL,
	peer TEXT NOT NULL,
	request_id TEXT NOT NULL,
	metadata TEXT NOT NULL
) STRICT;
CREATE INDEX audit_log_team ON audit_log(team_id);
