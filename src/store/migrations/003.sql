-- SPDX-License-Identifier: Apache-2.0
-- 003 - what sandboxes used: points of a sandbox, loads of a team, sums of an hour
--
-- sandbox_points.points is the coarse part of src/control/series.h, as bytes of this machine's order. A
-- row of team_loads holds from at_s on until the team's next row. usage_hours adds up reserved
-- processors and memory over time: thousandths of a CPU, or MiB, times milliseconds.

CREATE TABLE sandbox_points (
	sandbox_id TEXT PRIMARY KEY,
	points BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE team_loads (
	team_id TEXT NOT NULL,
	at_s INTEGER NOT NULL,
	running INTEGER NOT NULL,
	cpu_milli INTEGER NOT NULL,
	memory_mib INTEGER NOT NULL,
	PRIMARY KEY (team_id, at_s)
) STRICT, WITHOUT ROWID;
CREATE INDEX team_loads_at ON team_loads(at_s);

CREATE TABLE usage_hours (
	team_id TEXT NOT NULL,
	hour INTEGER NOT NULL,
	cpu_milli_ms INTEGER NOT NULL,
	memory_mib_ms INTEGER NOT NULL,
	peak_running INTEGER NOT NULL,
	peak_cpu_milli INTEGER NOT NULL,
	peak_memory_mib INTEGER NOT NULL,
	PRIMARY KEY (team_id, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_hours_hour ON usage_hours(hour);
