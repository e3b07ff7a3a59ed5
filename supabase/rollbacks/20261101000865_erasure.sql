delete from ops.erasure_plan
where relation::text !~ '^public\.' or relation::text ~ '^public\.(profiles|workspaces|workspace_members|roles)$';
drop function
ops.erase_workspace(uuid), ops.erase_user(uuid), ops.record_erasure(uuid, text, uuid, uuid),
ops.erase_details(uuid, uuid, uuid, text[], text[]),
ops.is_about(text, uuid, text, text, uuid, uuid, jsonb, jsonb, text, uuid, uuid, text[], text[]), ops.values_of(jsonb);
