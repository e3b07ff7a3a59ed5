grant select on public.profiles to authenticated, service_role;
grant update (display_name, avatar_url, locale, time_zone) on public.profiles to authenticated;

drop policy if exists profiles_select on public.profiles;
create policy profiles_select on public.profiles for select to authenticated
using (id = any (array(select authz.people() limit authz.refuse_estimates())));
comment on policy profiles_select on public.profiles is 'Oneself, and fellow members.';

drop policy if exists profiles_update on public.profiles;
create policy profiles_update on public.profiles for update to authenticated
using (id = (select authz.user_id()))
with check (id = (select authz.user_id()));
comment on policy profiles_update on public.profiles is 'Oneself.';
