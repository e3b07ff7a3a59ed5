delete from ops.not_exported
where relation = 'public.notifications'::regclass;
delete from tenancy.other_tables
where relation::text ~ '^public\.notification';
drop trigger profiles_reschedule on public.profiles;
drop trigger notification_hours_reschedule on public.notification_hours;
drop trigger notification_preferences_reschedule on public.notification_preferences;
drop function
public.unread_notification_count(uuid), public.mark_all_notifications_read(uuid),
public.mark_notifications_read(uuid[]), notify.reschedule_profile(), notify.reschedule_person(),
notify.reschedule(uuid), notify.mark_all_read(uuid), notify.mark_read(uuid[]),
notify.emit(uuid, text, uuid, jsonb, uuid[]), notify.due_at(notify.wishes, timestamptz),
notify.wishes_of(uuid, uuid, public.notification_kinds),
notify.audience(uuid, public.notification_kinds, uuid, uuid[]), notify.has_row_rules(regclass),
notify.may_see(uuid, regclass, uuid, uuid);
drop type notify.wishes;
