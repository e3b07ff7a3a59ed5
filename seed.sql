-- A workspace to look at on a developer's machine: `rowhouse local up` and `supabase start` load it
-- into a fresh database. Both people sign in with the password rowhouse-demo. Never for production.

insert into auth.users (id, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data)
values
(
    '11111111-1111-4111-8111-111111111111', 'olive@example.com',
    '$2b$10$Y/V5smN9LrYlmdCuE8pvNuRt2i4NlbCoPfkSHjAtH5ZEQ1odAi9XK', now(),
    '{"provider": "email", "providers": ["email"]}', '{"display_name": "Olive Owner"}'
),
(
    '22222222-2222-4222-8222-222222222222', 'max@example.com',
    '$2b$10$Y/V5smN9LrYlmdCuE8pvNuRt2i4NlbCoPfkSHjAtH5ZEQ1odAi9XK', now(),
    '{"provider": "email", "providers": ["email"]}', '{"display_name": "Max Member"}'
)
on conflict do nothing;

do $$
declare
    olive constant uuid := '11111111-1111-4111-8111-111111111111';
    max constant uuid := '22222222-2222-4222-8222-222222222222';
    workspace public.workspaces;
    project uuid;
begin
    if exists (select from public.workspaces where slug = 'harbor-lane') then
        return;
    end if;
    workspace := tenancy.make_workspace('Harbor Lane Studio', 'harbor-lane', olive);
    perform tenancy.add_member(workspace.id, max, authz.role_named(workspace.id, 'member'));
    insert into public.projects (workspace_id, name, description, lead_id, created_by)
    values (workspace.id, 'Move into the new studio', 'Boxes, keys, coffee machine.', olive, olive)
    returning id into project;
    insert into public.tasks (workspace_id, project_id, title, assignee_id, created_by)
    values
    (workspace.id, project, 'Order shelves', max, olive),
    (workspace.id, project, 'Cancel the old lease', olive, olive);
end
$$;
