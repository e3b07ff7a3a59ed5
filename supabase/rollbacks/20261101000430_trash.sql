drop function
tenancy.soft_delete(), tenancy.is_orphan(regclass, jsonb), tenancy.refuse_deleted(),
tenancy.delete_row(regclass, uuid, uuid), tenancy.lock_rows(uuid), tenancy.stamp(regclass, uuid, uuid, timestamptz),
tenancy.require_live_parents_of_row(), tenancy.require_live_parents(), tenancy.refuse_deleted_parent(text),
tenancy.parent_arguments(regclass), tenancy.parents(regclass), tenancy.children(regclass),
tenancy.references_of(regclass);
drop table tenancy.child_references;
drop table tenancy.deletions;
