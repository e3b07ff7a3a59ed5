drop function billing.plan_flaws;
drop function billing.count_flaw;
drop function billing.is_currency;
drop function billing.as_object;
drop function billing.is_per_seat;
drop table billing.prices;
drop table billing.plan_meters;
drop table billing.meters;
