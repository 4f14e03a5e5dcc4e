-- SPDX-License-Identifier: Apache-2.0
-- 008 - channels: whom a team wants to be told of what happens, and what waits to be told
--
-- events is a list between spaces, with one at each end. config is an object of texts, each sealed (control/channel_config.c).
-- A delivery is one event for one channel; its body is the payload. It is 'pending', then 'delivered', 'failed' (given up) or 'dropped';
-- pending ones leave in the order of seq.

CREATE TABLE channels (
  id TEXT PRIMARY KEY,
  team_id TEXT NOT NULL,
  name TEXT NOT NULL,
  provider TEXT NOT NULL,
  events TEXT NOT NULL,
  config TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  disabled_ms INTEGER NOT NULL DEFAULT 0,       -- 0: it is told
  disabled_reason TEXT NOT NULL DEFAULT '',
  failing_ms INTEGER NOT NULL DEFAULT 0,        -- since when nothing arrives; 0: the last one did
  delivered_ms INTEGER NOT NULL DEFAULT 0,      -- the last one
  dropped INTEGER NOT NULL DEFAULT 0            -- how many were never sent
);
CREATE UNIQUE INDEX channels_name ON channels(team_id, name);

CREATE TABLE channel_deliveries (
  seq INTEGER PRIMARY KEY,
  channel_id TEXT NOT NULL,
  id TEXT NOT NULL,                             -- a UUID
  event TEXT NOT NULL,
  body TEXT NOT NULL,
  state TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,          -- ever
  tries INTEGER NOT NULL DEFAULT 0,             -- since it was queued last
  created_ms INTEGER NOT NULL,
  next_ms INTEGER NOT NULL DEFAULT 0,           -- not before; 0: at once
  last_ms INTEGER NOT NULL DEFAULT 0,           -- the last attempt
  duration_ms INTEGER NOT NULL DEFAULT 0,       -- of it
  status INTEGER NOT NULL DEFAULT 0,            -- that it was answered with; 0: it was not
  error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX channel_deliveries_log ON channel_deliveries(channel_id, seq);
CREATE INDEX channel_deliveries_pending ON channel_deliveries(channel_id, seq) WHERE state = 'pending';
