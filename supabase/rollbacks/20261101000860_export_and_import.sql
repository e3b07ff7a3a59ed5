drop function
ops.finish_import(uuid),
ops.import_rows(regclass, uuid), ops.import_people(), ops.begin_import(jsonb), ops.person_tables(),
ops.workspace_people(), ops.workspace_tables();
drop table ops.not_exported;
