drop function ops.purge(integer);
drop view public.trash;
drop function public.restore(uuid, text, uuid);
drop function
tenancy.trash(), tenancy.restore(uuid, text, uuid), tenancy.restore_row(uuid, regclass, uuid),
tenancy.table_named(text), tenancy.soft_delete(), tenancy.is_orphan(regclass, jsonb),
tenancy.refuse_deleted(), tenancy.delete_row(regclass, uuid, uuid), tenancy.lock_rows(uuid),
tenancy.stamp(regclass, uuid, uuid, timestamptz),
tenancy.require_live_parents_of_row(), tenancy.require_live_parents(), tenancy.refuse_deleted_parent(text),
tenancy.parent_arguments(regclass), tenancy.parents(regclass), tenancy.children(regclass),
tenancy.references_of(regclass);
drop table tenancy.child_references;
drop type tenancy.trashed;
drop table tenancy.deletions;
