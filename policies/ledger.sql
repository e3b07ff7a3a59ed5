-- Read by the views of public, which read as their caller. Written by functions alone.
grant select (
    workspace_id, id, code, name, kind, currency, refuses_overdraft, subject, subject_id, created_at
) on ledger.accounts to authenticated;
grant select (
    workspace_id, account_id, balance, entry_count
) on ledger.balances to authenticated;
grant select (
    workspace_id, id, kind, description, occurred_on, posted_at, posted_by, amount, subject, subject_id, method,
    refunds_id, reverses_id
) on ledger.transactions to authenticated;
grant select (
    workspace_id, account_id, number, transaction_id, amount, balance
) on ledger.entries to authenticated;

drop policy if exists accounts_select on ledger.accounts;
create policy accounts_select on ledger.accounts for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy accounts_select on ledger.accounts is 'Those whose role allows it, in their workspaces.';

drop policy if exists balances_select on ledger.balances;
create policy balances_select on ledger.balances for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy balances_select on ledger.balances is 'Those whose role allows it, in their workspaces.';

drop policy if exists transactions_select on ledger.transactions;
create policy transactions_select on ledger.transactions for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy transactions_select on ledger.transactions is 'Those whose role allows it, in their workspaces.';

drop policy if exists entries_select on ledger.entries;
create policy entries_select on ledger.entries for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('ledger.read') limit authz.refuse_estimates())));
comment on policy entries_select on ledger.entries is 'Those whose role allows it, in their workspaces.';
