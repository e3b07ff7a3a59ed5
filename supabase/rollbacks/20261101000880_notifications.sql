drop trigger workspace_members_forget on public.workspace_members;
drop trigger profiles_time_zone on public.profiles;
drop table public.notifications, public.notification_hours, public.notification_preferences cascade;
drop schema notify cascade;
drop table public.notification_kinds;
