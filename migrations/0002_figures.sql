-- Live figures: what routers report, one row a window. Nothing of it is in the change log; what is old
-- is removed.

-- One window of a cluster, as one run of one replica heard of it: `step` is the window's length in
-- milliseconds (5000, or 60000 of all runs together: `run` is empty then), `body` the figures, compressed.
CREATE TABLE figures (
    cluster     TEXT   NOT NULL,
    step        BIGINT NOT NULL,
    at          BIGINT NOT NULL,
    run         TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    body        TEXT   NOT NULL,
    PRIMARY KEY (cluster, step, at, run)
);

-- The last window that was counted of each router process: a report is counted once, whichever replica
-- hears of it, and how often.
CREATE TABLE figure_reports (
    cluster     TEXT   NOT NULL,
    router      TEXT   NOT NULL,
    process     TEXT   NOT NULL,
    at          BIGINT NOT NULL,
    PRIMARY KEY (cluster, router, process)
);
