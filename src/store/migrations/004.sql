-- SPDX-License-Identifier: Apache-2.0
-- 004 - templates: layers on this machine under names, and what sandboxes of them get by default
--
-- state: creating (nothing can use it; the next start removes it), ready, deleted (no name any more; kept until
-- nothing stands on it). seal is what the worker answered when it was made.

CREATE TABLE templates (
	id TEXT PRIMARY KEY,
	team_id TEXT NOT NULL,
	platform INTEGER NOT NULL,       -- every team sees it
	name TEXT NOT NULL,
	kind TEXT NOT NULL,              -- base, snapshot
	state TEXT NOT NULL,
	sandbox_id TEXT NOT NULL,        -- it was made from
	parent_id TEXT NOT NULL,         -- host, empty, or another
	seal BLOB NOT NULL,
	host_fingerprint TEXT NOT NULL,  -- when it stands on template host
	isolation TEXT NOT NULL,
	size_bytes INTEGER NOT NULL,
	depth INTEGER NOT NULL,
	cpu_milli INTEGER NOT NULL,      -- defaults of its sandboxes; 0: none
	memory_bytes INTEGER NOT NULL,
	disk_bytes INTEGER NOT NULL,
	default_user TEXT NOT NULL,
	workdir TEXT NOT NULL,
	envs TEXT NOT NULL,
	start_command TEXT NOT NULL,
	kernel_warm INTEGER NOT NULL,
	created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX templates_name ON templates(team_id, name) WHERE state = 'ready';
CREATE UNIQUE INDEX templates_platform_name ON templates(name) WHERE state = 'ready' AND platform = 1;
