drop view public.audit_log;
drop function
audit.verify_anchor(bigint, text), audit.verify_seals(bigint, bigint), audit.verify_head(), audit.erased(),
audit.seal(integer), audit.seal_hash(audit.seals), audit.entry_hash(audit.entries),
audit.details_hash(uuid, jsonb, jsonb, inet, text);
drop table audit.chain_head, audit.seals;
