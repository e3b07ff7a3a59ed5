grant select, delete on public.notification_preferences to authenticated;
grant insert (user_id, workspace_id, kind, frequency, is_muted) on public.notification_preferences to authenticated;
grant update (frequency, is_muted) on public.notification_preferences to authenticated;
grant select, insert, update, delete on public.notification_preferences to service_role;

drop policy if exists notification_preferences_select on public.notification_preferences;
create policy notification_preferences_select on public.notification_preferences for select to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_select on public.notification_preferences is 'Everybody their own.';

drop policy if exists notification_preferences_insert on public.notification_preferences;
create policy notification_preferences_insert on public.notification_preferences for insert to authenticated
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_insert on public.notification_preferences is 'Everybody their own.';

drop policy if exists notification_preferences_update on public.notification_preferences;
create policy notification_preferences_update on public.notification_preferences for update to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())))
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_update on public.notification_preferences is 'Everybody their own.';

drop policy if exists notification_preferences_delete on public.notification_preferences;
create policy notification_preferences_delete on public.notification_preferences for delete to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_preferences_delete on public.notification_preferences is 'Everybody their own.';
