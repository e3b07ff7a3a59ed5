delete from ops.not_exported
where relation = 'public.notifications'::regclass;
delete from tenancy.other_tables
where
    relation in (
        'public.notification_kinds'::regclass, 'public.notification_preferences'::regclass,
        'public.notification_hours'::regclass, 'public.notifications'::regclass
    );
drop trigger workspace_members_forget on public.workspace_members;
drop trigger profiles_reschedule on public.profiles;
drop trigger profiles_time_zone on public.profiles;
drop function
public.unread_notification_count(uuid), public.mark_all_notifications_read(uuid),
public.mark_notifications_read(uuid[]);
drop table public.notifications, public.notification_hours, public.notification_preferences cascade;
drop schema notify cascade;
drop table public.notification_kinds;
