-- SPDX-License-Identifier: Apache-2.0
-- 006 - accounts: how users log in, what keys may do and until when, what teams and keys may use
--
-- password is what libsodium's crypto_pwhash_str wrote, empty where there is none. Session tokens carry
-- the epoch of their user: another one voids them. Roles are owner, admin, member; states of users
-- inactive (not activated yet), active, disabled, deleted. Keys that exist may do everything, as before.
-- quota_* 0: no bound of its own.

ALTER TABLE users ADD COLUMN email TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN password TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN status TEXT NOT NULL DEFAULT 'active';
ALTER TABLE users ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN github_id TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN updated_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN deleted_ms INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX users_email ON users(email) WHERE email <> '' AND status <> 'deleted';
CREATE UNIQUE INDEX users_github ON users(github_id) WHERE github_id <> '' AND status <> 'deleted';

ALTER TABLE teams ADD COLUMN slug TEXT NOT NULL DEFAULT '';
ALTER TABLE teams ADD COLUMN is_byoc INTEGER NOT NULL DEFAULT 0;
ALTER TABLE teams ADD COLUMN deleted_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE teams ADD COLUMN quota_sandboxes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE teams ADD COLUMN quota_cpu_milli INTEGER NOT NULL DEFAULT 0;
ALTER TABLE teams ADD COLUMN quota_memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE teams ADD COLUMN quota_disk_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE teams ADD COLUMN quota_creates INTEGER NOT NULL DEFAULT 0; -- a minute
UPDATE teams SET slug = lower(hex(randomblob(3))) || '-' || lower(hex(randomblob(3)));

ALTER TABLE team_members ADD COLUMN is_default INTEGER NOT NULL DEFAULT 0;
UPDATE team_members SET is_default = 1;

ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT '*';
ALTER TABLE api_keys ADD COLUMN expires_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_sandboxes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_cpu_milli INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_disk_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_creates INTEGER NOT NULL DEFAULT 0;
