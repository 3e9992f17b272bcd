-- One text for Postgres and SQLite: TEXT and BIGINT only, times in Unix milliseconds, objects as JSON.

-- The one row that every write locks first: where the history stands.
CREATE TABLE head (
    id          BIGINT NOT NULL PRIMARY KEY,
    epoch       TEXT   NOT NULL,
    revision    BIGINT NOT NULL,
    digest      TEXT   NOT NULL,
    -- Epochs that this history took the place of, by an operator's decision; separated by spaces.
    supersedes  TEXT   NOT NULL,
    accepted_at BIGINT NOT NULL
);

-- The change log: one row a change, in the order of their revisions, chained by digest.
CREATE TABLE changes (
    revision    BIGINT NOT NULL PRIMARY KEY,
    at          BIGINT NOT NULL,
    actor       TEXT   NOT NULL,
    cause       TEXT   NOT NULL,
    kind        TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    before_json TEXT,
    after_json  TEXT,
    unit        TEXT   NOT NULL,
    digest      TEXT   NOT NULL
);

-- Clusters, services, routes and tokens as they are now.
CREATE TABLE objects (
    kind        TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    revision    BIGINT NOT NULL,
    body        TEXT   NOT NULL,
    PRIMARY KEY (kind, key)
);

-- Instances as they are now, by cluster/service/id.
CREATE TABLE instances (
    key         TEXT   NOT NULL PRIMARY KEY,
    revision    BIGINT NOT NULL,
    body        TEXT   NOT NULL
);

-- Renewals that reached a replica which does not look for lapsed leases, for the one that does.
CREATE TABLE leases (
    replica     TEXT   NOT NULL PRIMARY KEY,
    at          BIGINT NOT NULL,
    body        TEXT   NOT NULL
);

-- What routers have applied, as each replica saw it.
CREATE TABLE routers (
    cluster     TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    version     TEXT   NOT NULL,
    epoch       TEXT   NOT NULL,
    revision    BIGINT NOT NULL,
    last_seen   BIGINT NOT NULL,
    PRIMARY KEY (cluster, id)
);

-- Who does what must be done once, and until when; also which replicas live.
CREATE TABLE jobs (
    name        TEXT   NOT NULL PRIMARY KEY,
    holder      TEXT   NOT NULL,
    until       BIGINT NOT NULL
);
