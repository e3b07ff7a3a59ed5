delete from public.permissions
where permission in ('audit.read', 'trash.manage');
drop function
tenancy.release_table(regclass), tenancy.refresh_table(regclass),
tenancy.adopt_table(regclass, text, jsonb, text[], text, text[], jsonb, text), tenancy.attach(regclass),
tenancy.findings(regclass);
