SELECT
    count(*) OVER type_minute AS "events in 60 s",
    count(*) OVER type_hour AS "events in 1 h",
    avg(failed) OVER hour AS "share of failures in 1 h",
    count(DISTINCT peer) OVER hour AS "peers in 1 h",
    (time - max(time) OVER before) / 1000 AS "seconds since last",
    (min(time) OVER always = time)::DOUBLE AS "new entity",
    {new_for_entity} AS "new for entity",
    {new_for_all} AS "new for all"
FROM events
WINDOW
    type_minute AS (PARTITION BY entity, type ORDER BY time
        RANGE BETWEEN 60000 PRECEDING AND CURRENT ROW),
    type_hour AS (PARTITION BY entity, type ORDER BY time
        RANGE BETWEEN 3600000 PRECEDING AND CURRENT ROW),
    hour AS (PARTITION BY entity ORDER BY time
        RANGE BETWEEN 3600000 PRECEDING AND CURRENT ROW),
    before AS (PARTITION BY entity ORDER BY time
        RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
    always AS (PARTITION BY entity)
ORDER BY row
