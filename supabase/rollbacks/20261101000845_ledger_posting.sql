delete from public.permissions
where permission ~ '^ledger\.';
select audit.unwatch('ledger.accounts');
drop function
ledger.close_period(uuid, date), ledger.reverse(uuid, uuid, text, text),
ledger.require_key(text), ledger.post(uuid, text, jsonb, text, date, text, text, uuid, text, uuid),
ledger.write_transaction(ledger.transactions, uuid[], bigint[], boolean),
ledger.count_refund(ledger.transactions), ledger.lock_period(uuid, date),
ledger.refuse_entries(uuid, jsonb), ledger.digest(ledger.transactions),
ledger.body_hash(ledger.transactions, text);
