drop function
tenancy.plan_erasure(regclass, jsonb, text), tenancy.erasure_findings(regclass), tenancy.personal_columns(regclass);
drop table ops.erasure_plan;
