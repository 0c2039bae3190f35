-- The time in milliseconds since 1970 and the unit that it was given in, of each row; value by value.
--
-- Numbers, also written as text, are seconds below 1e11 (the year 5138), milliseconds below 1e14, microseconds
-- below 1e17, and nanoseconds above. So milliseconds before March 1973 would be misread. Other text is read as
-- ISO 8601; without a zone it counts as UTC.
SELECT row, unit, round(CASE unit WHEN 'seconds' THEN number * 1e3 WHEN 'milliseconds' THEN number
    WHEN 'microseconds' THEN number / 1e3 WHEN 'nanoseconds' THEN number / 1e6 ELSE moment END) AS ms
FROM (SELECT rowid AS row, {text} AS text, TRY_CAST(text AS DOUBLE) AS number,
    epoch_ms(TRY_CAST(regexp_replace(text, '^(\d{{4}})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)',
        '\1-\2-\3T\4:\5:\6') AS TIMESTAMPTZ)) AS moment,
    CASE WHEN abs(number) < 1e11 THEN 'seconds' WHEN abs(number) < 1e14 THEN 'milliseconds'
        WHEN abs(number) < 1e17 THEN 'microseconds' WHEN abs(number) < 9.2e18 THEN 'nanoseconds'
        WHEN number IS NULL AND moment IS NOT NULL THEN 'ISO 8601 text' END AS unit
FROM events)
