delete from ops.not_exported
where relation in ('notify.messages'::regclass, 'jobs.jobs'::regclass, 'jobs.history'::regclass);
drop function notify.write_message(text, text, text, notify.rendered, uuid, uuid, boolean, boolean, jsonb);
drop table notify.provider_events, notify.messages, notify.suppressions;
drop function notify.forget_secret(), notify.is_address(text, text);
drop function
notify.compose(notify.look, text, text[], text, text, text, text), notify.footer(text, text),
notify.page(notify.look, text, xml, xml), notify.button(notify.look, text, text), notify.look_of(uuid);
drop type notify.rendered, notify.look;
drop table notify.brands;
drop function notify.sign(text), notify.padded(bytea, integer);
drop table notify.settings;
