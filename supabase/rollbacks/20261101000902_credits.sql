drop function billing.expire_credits;
drop view billing.credit_balances;
drop function billing.grant_credit;
drop table billing.credit_grants;
