grant select, delete on public.notification_hours to authenticated;
grant insert (user_id, digest_hour, digest_weekday, quiet_from, quiet_until)
on public.notification_hours to authenticated;
grant update (digest_hour, digest_weekday, quiet_from, quiet_until) on public.notification_hours to authenticated;
grant select, insert, update, delete on public.notification_hours to service_role;

drop policy if exists notification_hours_select on public.notification_hours;
create policy notification_hours_select on public.notification_hours for select to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_select on public.notification_hours is 'Everybody their own.';

drop policy if exists notification_hours_insert on public.notification_hours;
create policy notification_hours_insert on public.notification_hours for insert to authenticated
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_insert on public.notification_hours is 'Everybody their own.';

drop policy if exists notification_hours_update on public.notification_hours;
create policy notification_hours_update on public.notification_hours for update to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())))
with check (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_update on public.notification_hours is 'Everybody their own.';

drop policy if exists notification_hours_delete on public.notification_hours;
create policy notification_hours_delete on public.notification_hours for delete to authenticated
using (user_id = any (array(select authz.user_id() limit authz.refuse_estimates())));
comment on policy notification_hours_delete on public.notification_hours is 'Everybody their own.';
