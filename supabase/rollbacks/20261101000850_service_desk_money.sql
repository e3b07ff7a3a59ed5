drop view
public.cash_report, public.trial_balance, public.account_statement, public.customer_balances, public.ticket_balances;
drop trigger tickets_keep_currency on public.tickets;
drop function
public.write_off(uuid, uuid, numeric, text, text), public.record_refund(uuid, uuid, numeric, text, text),
public.record_payment(uuid, uuid, numeric, text, text), public.record_charge(uuid, uuid, numeric, text, text),
tenancy.keep_currency(), ledger.write_off(uuid, uuid, numeric, text, text),
ledger.record_refund(uuid, uuid, numeric, text, text), ledger.record_payment(uuid, uuid, numeric, text, text),
ledger.record_charge(uuid, uuid, numeric, text, text),
ledger.post_for_ticket(public.tickets, text, numeric, text, text, text, text, text, uuid),
ledger.desk_account(text, public.tickets), ledger.require_amount(numeric), ledger.ticket_for(uuid, uuid);
