drop function ops.purge(integer);
drop view public.trash;
drop function public.restore(uuid, text, uuid);
drop function
tenancy.trash(), tenancy.restore(uuid, text, uuid), tenancy.restore_row(uuid, regclass, uuid),
tenancy.table_named(text);
drop type tenancy.trashed;
