-- SPDX-License-Identifier: Apache-2.0
-- 009 - hosts: machines that run sandboxes; the one that Aviary runs on is among them
--
-- tags stand in order between commas. registration, family and refresh are SHA-256 of tokens, or empty. A
-- refresh token is a family and a secret: one of the family with another secret is an old one.

CREATE TABLE hosts (
	id TEXT PRIMARY KEY,
	type TEXT NOT NULL,
	team_id TEXT NOT NULL,
	provider TEXT NOT NULL,
	zone TEXT NOT NULL,
	arch TEXT NOT NULL,
	address TEXT NOT NULL,
	status TEXT NOT NULL,
	tags TEXT NOT NULL,
	created_by TEXT NOT NULL,
	cpu_cores INTEGER NOT NULL,
	memory_mb INTEGER NOT NULL,
	disk_gb INTEGER NOT NULL,
	registration_expires_ms INTEGER NOT NULL,
	refresh_expires_ms INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	created_ms INTEGER NOT NULL,
	updated_ms INTEGER NOT NULL,
	heartbeat_ms INTEGER NOT NULL,
	is_local INTEGER NOT NULL,
	registration BLOB NOT NULL,
	family BLOB NOT NULL,
	refresh BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX hosts_local ON hosts(is_local) WHERE is_local = 1;
