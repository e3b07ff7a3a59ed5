grant select, delete on public.tasks to authenticated;
grant insert (workspace_id, id, project_id, title, notes, status, due_on, assignee_id)
on public.tasks to authenticated;
grant update (project_id, title, notes, status, due_on, assignee_id) on public.tasks to authenticated;
grant select, insert, update, delete on public.tasks to service_role;

drop policy if exists tasks_select on public.tasks;
create policy tasks_select on public.tasks for select to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.read') limit authz.refuse_estimates())));
comment on policy tasks_select on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_insert on public.tasks;
create policy tasks_insert on public.tasks for insert to authenticated
with check (workspace_id = any (array(select authz.workspaces_with('tasks.create') limit authz.refuse_estimates())));
comment on policy tasks_insert on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_update on public.tasks;
create policy tasks_update on public.tasks for update to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.update') limit authz.refuse_estimates())))
with check (workspace_id = any (array(select authz.workspaces_with('tasks.update') limit authz.refuse_estimates())));
comment on policy tasks_update on public.tasks is 'Those whose role allows it, in their workspaces.';

drop policy if exists tasks_delete on public.tasks;
create policy tasks_delete on public.tasks for delete to authenticated
using (workspace_id = any (array(select authz.workspaces_with('tasks.delete') limit authz.refuse_estimates())));
comment on policy tasks_delete on public.tasks is 'Those whose role allows it, in their workspaces.';

-- On top of the role: a task is seen by those who see its project.
drop policy if exists tasks_private on public.tasks;
create policy tasks_private on public.tasks as restrictive for all to authenticated
using (
    not project_is_private
    or (workspace_id, project_id) in (
        select joined.workspace_id, joined.project_id from authz.joined_projects() as joined
    )
    or workspace_id = any (array(select authz.workspaces_with('projects.read_private')))
);
comment on policy tasks_private on public.tasks is 'Of a private project: only for those who see it.';

drop policy if exists tasks_live on public.tasks;
create policy tasks_live on public.tasks as restrictive for all to authenticated
using (deleted_at is null);
comment on policy tasks_live on public.tasks is 'What is in the trash is not there.';
