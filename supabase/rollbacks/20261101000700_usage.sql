drop view public.workspace_usage;
drop function billing.usage();
