drop function authz.visible_roles(), authz.people(), authz.require_ceiling(uuid, uuid, uuid);
drop function authz.refuse_unless_within(boolean);
drop function authz.outranks(uuid, uuid, uuid), authz.covers(uuid, uuid, text[]);
drop function authz.permissions_of(uuid, uuid), authz.require(uuid, text);
drop function authz.refuse_estimates(), authz.refuse_unless_signed_in(), authz.workspaces_with(text);
drop function authz.members_with(uuid, text);
delete from public.permissions
where permission ~ '^(workspace|members|roles|billing)\.';
