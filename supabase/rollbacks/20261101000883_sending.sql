drop function
notify.maintain(), notify.receive(text, jsonb), notify.resend(uuid),
notify.refused(uuid, text, boolean, boolean), notify.taken_before(uuid, text), notify.accepted(uuid, jsonb),
notify.apply_event(notify.provider_events), notify.take(uuid), notify.body_of(notify.messages),
notify.sender_of(text, uuid), notify.unsubscribe(text, boolean), notify.unsubscribe_headers(text),
notify.unsubscribe_url(uuid, uuid, text);
