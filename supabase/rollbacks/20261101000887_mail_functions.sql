select audit.unwatch('notify.settings'), audit.unwatch('notify.brands');
drop function
public.unsubscribe(text, boolean), public.receive_mail_event(text, jsonb), public.settle_delivery(jsonb),
public.claim_deliveries(integer), public.set_brand(uuid, text, text, text, boolean, boolean),
notify.nudge(), notify.settle_delivery(jsonb), notify.claim_deliveries(integer),
notify.set_brand(uuid, text, text, text, boolean, boolean), notify.forget_person(uuid, text[], text),
notify.send_auth_email(jsonb), notify.mail_for_auth(text, uuid, text, text, text, text), notify.url_encode(text);
