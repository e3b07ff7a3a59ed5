drop function ledger.findings(uuid);
