-- SPDX-License-Identifier: Apache-2.0
-- 001 - users, teams, keys, sandboxes, idempotency keys, settings
--
-- Times ending in _ms are real time since 1970; 0 means "not yet". Names of states and reasons are
-- those of src/control/states.def.

CREATE TABLE users (
	id TEXT PRIMARY KEY,
	name TEXT NOT NULL,
	is_admin INTEGER NOT NULL,
	created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE teams (
	id TEXT PRIMARY KEY,
	name TEXT NOT NULL,
	created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE team_members (
	team_id TEXT NOT NULL REFERENCES teams(id),
	user_id TEXT NOT NULL REFERENCES users(id),
	role TEXT NOT NULL,
	joined_ms INTEGER NOT NULL,
	PRIMARY KEY (team_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
	id TEXT PRIMARY KEY,
	team_id TEXT NOT NULL REFERENCES teams(id),
	user_id TEXT NOT NULL REFERENCES users(id),
	name TEXT NOT NULL,
	prefix TEXT NOT NULL,
	hash BLOB NOT NULL UNIQUE,
	created_ms INTEGER NOT NULL,
	last_used_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE sandboxes (
	seq INTEGER PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	team_id TEXT NOT NULL,
	key_id TEXT NOT NULL,
	template_name TEXT NOT NULL,
	template_id TEXT NOT NULL,
	isolation TEXT NOT NULL,
	state TEXT NOT NULL,
	final INTEGER NOT NULL,
	reason TEXT NOT NULL,
	message TEXT NOT NULL,
	cpu_milli INTEGER NOT NULL,
	memory_bytes INTEGER NOT NULL,
	disk_bytes INTEGER NOT NULL,
	pids_max INTEGER NOT NULL,
	sudo INTEGER NOT NULL,
	idle_timeout_ms INTEGER NOT NULL,
	max_lifetime_ms INTEGER NOT NULL,
	created_ms INTEGER NOT NULL,
	started_ms INTEGER NOT NULL,
	last_active_ms INTEGER NOT NULL,
	stopped_ms INTEGER NOT NULL,
	updated_ms INTEGER NOT NULL,
	created_boot_ns INTEGER NOT NULL,
	last_active_boot_ns INTEGER NOT NULL,
	pid INTEGER NOT NULL,
	start_ticks INTEGER NOT NULL,
	pidns_inode INTEGER NOT NULL,
	boot_id TEXT NOT NULL,
	envs TEXT NOT NULL,
	metadata TEXT NOT NULL
) STRICT;
CREATE INDEX sandboxes_live ON sandboxes(seq) WHERE final = 0;
CREATE INDEX sandboxes_history ON sandboxes(team_id, created_ms) WHERE final = 1;
CREATE INDEX sandboxes_stopped ON sandboxes(stopped_ms) WHERE final = 1;

CREATE TABLE idempotency_keys (
	team_id TEXT NOT NULL,
	key TEXT NOT NULL,
	request_hash BLOB NOT NULL,
	sandbox_id TEXT NOT NULL,
	created_ms INTEGER NOT NULL,
	PRIMARY KEY (team_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_created ON idempotency_keys(created_ms);
CREATE INDEX idempotency_keys_sandbox ON idempotency_keys(sandbox_id);

CREATE TABLE settings (
	name TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
