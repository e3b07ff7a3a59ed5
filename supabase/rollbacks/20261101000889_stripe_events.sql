select jobs.drop_kind('billing.learn');
drop function billing.event_types;
drop function billing.clear_events;
drop function billing.replay;
drop function billing.learn;
drop function billing.note_outcome;
drop function billing.receive_many;
drop function billing.receive;
drop table billing.events;
