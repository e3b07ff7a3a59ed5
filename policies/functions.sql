-- Every function that a role of the API may call, and the schemas it must enter for that. What is
-- not here runs for nobody but its owner.

grant usage on schema authz, ops, tenancy, billing, audit, ledger to authenticated, service_role;

-- What policies and column defaults ask.
grant execute on function ops.now() to authenticated, service_role;
grant execute on function ops.is_allowed(text) to authenticated, service_role;
grant execute on function authz.claims() to authenticated, service_role;
grant execute on function authz.user_id() to authenticated, service_role;
grant execute on function authz.workspaces_with(text) to authenticated;
grant execute on function authz.refuse_estimates() to authenticated;
grant execute on function ops.raise_http(integer, text, text, jsonb, text, jsonb) to authenticated;
grant execute on function authz.people() to authenticated;
grant execute on function authz.visible_roles() to authenticated;
grant execute on function authz.joined_projects() to authenticated;
grant execute on function billing.usage() to authenticated;
grant execute on function tenancy.trash() to authenticated;
-- search() runs as its caller, and asks these.
grant execute on function tenancy.search(uuid, text, text[], integer) to authenticated;
grant execute on function tenancy.search_words(text) to authenticated;
grant execute on function tenancy.search_parts(text) to authenticated;
grant execute on function tenancy.search_mark(uuid) to authenticated;
grant execute on function tenancy.search_query(uuid, text[], text) to authenticated;
grant execute on function tenancy.search_candidates(uuid, text[], regclass[], text, integer) to authenticated;
grant execute on function tenancy.searchable_tables(text[]) to authenticated;
grant execute on function tenancy.similar_words(uuid, text[]) to authenticated;
grant execute on function tenancy.search_text(text) to authenticated;
grant execute on function public.search(uuid, text, text[], integer) to authenticated;

-- What clients call, each with the definer function behind it.
grant execute on function public.create_workspace(text, text) to authenticated;
grant execute on function tenancy.create_workspace(text, text) to authenticated;
grant execute on function public.delete_workspace(uuid) to authenticated;
grant execute on function tenancy.delete_workspace(uuid) to authenticated;
grant execute on function public.restore_workspace(uuid) to authenticated;
grant execute on function tenancy.restore_workspace(uuid) to authenticated;
grant execute on function public.my_workspaces() to authenticated;
grant execute on function tenancy.my_workspaces() to authenticated;
grant execute on function public.my_permissions(uuid) to authenticated;
grant execute on function tenancy.my_permissions(uuid) to authenticated;
grant execute on function public.set_member_role(uuid, uuid, text) to authenticated;
grant execute on function tenancy.set_member_role(uuid, uuid, text) to authenticated;
grant execute on function public.remove_member(uuid, uuid) to authenticated;
grant execute on function tenancy.remove_member(uuid, uuid) to authenticated;
grant execute on function public.leave_workspace(uuid) to authenticated;
grant execute on function tenancy.leave_workspace(uuid) to authenticated;
grant execute on function public.transfer_ownership(uuid, uuid) to authenticated;
grant execute on function tenancy.transfer_ownership(uuid, uuid) to authenticated;
grant execute on function public.invite_member(uuid, text, text) to authenticated;
grant execute on function tenancy.invite_member(uuid, text, text) to authenticated;
grant execute on function public.resend_invitation(uuid, uuid) to authenticated;
grant execute on function tenancy.resend_invitation(uuid, uuid) to authenticated;
grant execute on function public.revoke_invitation(uuid, uuid) to authenticated;
grant execute on function tenancy.revoke_invitation(uuid, uuid) to authenticated;
grant execute on function public.preview_invitation(text) to authenticated;
grant execute on function tenancy.preview_invitation(text) to authenticated;
grant execute on function public.accept_invitation(text) to authenticated;
grant execute on function tenancy.accept_invitation(text) to authenticated;
grant execute on function public.create_role(uuid, text, text, text[], text) to authenticated;
grant execute on function tenancy.create_role(uuid, text, text, text[], text) to authenticated;
grant execute on function public.update_role(uuid, uuid, text, text[], text) to authenticated;
grant execute on function tenancy.update_role(uuid, uuid, text, text[], text) to authenticated;
grant execute on function public.delete_role(uuid, uuid) to authenticated;
grant execute on function tenancy.delete_role(uuid, uuid) to authenticated;
grant execute on function public.restore(uuid, text, uuid) to authenticated;
grant execute on function tenancy.restore(uuid, text, uuid) to authenticated;
grant execute on function public.record_charge(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.record_charge(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function public.record_payment(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.record_payment(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function public.record_refund(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.record_refund(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function public.write_off(uuid, uuid, numeric, text, text) to authenticated;
grant execute on function ledger.write_off(uuid, uuid, numeric, text, text) to authenticated;
