select audit.unwatch(w.relation) from audit.watched_tables as w;
drop function
audit.rewatch(regclass), audit.watch_findings(regclass), audit.unwatch(regclass),
audit.watch(regclass, text, text, text, text[], text[]), audit.recorder_name(regclass),
audit.recorder(audit.watched_tables), audit.redacted_columns(regclass, text[]);
drop table audit.watched_tables;
