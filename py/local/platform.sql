-- What a fresh Supabase project holds before the first migration, as far as Rowhouse meets it:
-- Supabase's roles with their attributes and default grants, its schemas, and auth with the
-- columns that Supabase Auth has. Run once, as the superuser supabase_admin, in a new database.
-- Source: github.com/supabase/postgres (migrations/db/init-scripts) and github.com/supabase/auth.
-- Roles belong to the server, not to a database: they are made only where they are missing.

do $$
declare
    -- As on Supabase, postgres is no superuser: a migration that needs more fails here first.
    wanted constant jsonb := '{
        "postgres": "login createdb createrole replication bypassrls",
        "anon": "nologin noinherit",
        "authenticated": "nologin noinherit",
        "service_role": "nologin noinherit bypassrls",
        "authenticator": "login noinherit",
        "supabase_auth_admin": "login noinherit createrole"
    }';
    role record;
begin
    for role in select key as name, value as attributes from jsonb_each_text(wanted) loop
        if to_regrole(role.name) is null then
            execute format('create role %I %s', role.name, role.attributes);
        end if;
    end loop;
end
$$;

grant anon to authenticator;
grant authenticated to authenticator;
grant service_role to authenticator;
grant anon to postgres;
grant authenticated to postgres;
grant service_role to postgres;
grant pg_monitor to postgres;
grant pg_signal_backend to postgres;
alter role postgres set search_path = public, extensions;
alter role supabase_admin set search_path = public, extensions, auth;
alter role supabase_auth_admin set search_path = 'auth';
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';

do $$
begin
    execute format('grant all on database %I to postgres', current_database());
end
$$;

alter schema public owner to postgres;
grant usage on schema public to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
grant all on functions to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
grant all on sequences to anon, authenticated, service_role;

create schema extensions authorization supabase_admin;
grant usage on schema extensions to postgres, anon, authenticated, service_role;

create schema auth authorization supabase_auth_admin;
grant usage on schema auth to postgres, anon, authenticated, service_role;

set role supabase_auth_admin;

create table auth.users (
    id uuid primary key,
    aud varchar(255) default 'authenticated',
    role varchar(255) default 'authenticated',
    email varchar(255),
    encrypted_password varchar(255),
    phone text unique,
    email_confirmed_at timestamptz,
    phone_confirmed_at timestamptz,
    confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
    invited_at timestamptz,
    confirmation_token varchar(255),
    confirmation_sent_at timestamptz,
    recovery_token varchar(255),
    recovery_sent_at timestamptz,
    email_change varchar(255),
    email_change_token_new varchar(255),
    email_change_token_current varchar(255),
    email_change_sent_at timestamptz,
    email_change_confirm_status smallint default 0 check (email_change_confirm_status between 0 and 2),
    phone_change text,
    phone_change_token varchar(255),
    phone_change_sent_at timestamptz,
    reauthentication_token varchar(255),
    reauthentication_sent_at timestamptz,
    raw_app_meta_data jsonb default '{}',
    raw_user_meta_data jsonb default '{}',
    banned_until timestamptz,
    deleted_at timestamptz,
    is_sso_user boolean not null default false,
    is_anonymous boolean not null default false,
    last_sign_in_at timestamptz,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create unique index users_email_partial_key on auth.users (email) where is_sso_user = false;
create index users_is_anonymous_idx on auth.users (is_anonymous);
create unique index users_confirmation_token_idx on auth.users (confirmation_token)
where length(confirmation_token) > 6;
create unique index users_recovery_token_idx on auth.users (recovery_token) where length(recovery_token) > 6;
create unique index users_email_change_token_current_idx on auth.users (email_change_token_current)
where length(email_change_token_current) > 6;
create unique index users_email_change_token_new_idx on auth.users (email_change_token_new)
where length(email_change_token_new) > 6;
create unique index users_reauthentication_token_idx on auth.users (reauthentication_token)
where length(reauthentication_token) > 6;

create table auth.sessions (
    id uuid primary key,
    user_id uuid not null references auth.users (id) on delete cascade,
    not_after timestamptz,
    refreshed_at timestamp,
    user_agent text,
    ip inet,
    tag text,
    refresh_token_hmac_key text,
    refresh_token_counter bigint,
    scopes text check (length(scopes) <= 4096),
    aal text check (aal in ('aal1', 'aal2', 'aal3')),
    factor_id uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index sessions_user_id_idx on auth.sessions (user_id);

create table auth.refresh_tokens (
    id text primary key,
    token varchar(255) not null,
    user_id uuid not null,
    session_id uuid references auth.sessions (id) on delete cascade,
    revoked boolean default false,
    parent varchar(255),
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index refresh_tokens_token_idx on auth.refresh_tokens (token);
create index refresh_tokens_user_id_idx on auth.refresh_tokens (user_id);
create index refresh_tokens_session_id_revoked_idx on auth.refresh_tokens (session_id, revoked);

create table auth.identities (
    id uuid primary key,
    provider text not null,
    provider_id text not null,
    user_id uuid not null references auth.users (id) on delete cascade,
    identity_data jsonb not null default '{}',
    email varchar(255) generated always as (lower(identity_data ->> 'email')) stored,
    last_sign_in_at timestamptz,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    unique (provider, provider_id)
);
create index identities_user_id_idx on auth.identities (user_id);
create index identities_email_idx on auth.identities (email);

create table auth.flow_state (
    id uuid primary key,
    user_id uuid,
    auth_code text,
    authentication_method text not null,
    code_challenge_method text check (code_challenge_method in ('s256', 'plain')),
    code_challenge text,
    provider_type text not null,
    provider_access_token text,
    provider_refresh_token text,
    auth_code_issued_at timestamptz,
    invite_token text,
    referrer text,
    oauth_client_state_id uuid,
    linking_target_id uuid,
    email_optional boolean not null default false,
    created_at timestamptz default now(),
    updated_at timestamptz default now()
);
create index idx_auth_code on auth.flow_state (auth_code);
create index idx_user_id_auth_method on auth.flow_state (user_id, authentication_method);
create index flow_state_created_at_idx on auth.flow_state (created_at);

create table auth.audit_log_entries (
    id uuid primary key,
    payload json,
    created_at timestamptz default now(),
    ip_address varchar(64) default ''
);

create function auth.jwt() returns jsonb language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb
$$;
create function auth.uid() returns uuid language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;
create function auth.role() returns text language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
    )
$$;
create function auth.email() returns text language sql stable as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.email', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
    )
$$;
grant all on all tables in schema auth to postgres;

reset role;

-- Only a superuser may make pg_cron's extension, and only in the one database it serves. On
-- Supabase the platform makes it in the name of postgres.
do $$
begin
    create extension pg_cron with schema pg_catalog;
    grant usage on schema cron to postgres;
    grant select on cron.job, cron.job_run_details to postgres;
exception
    when others then raise notice 'pg_cron is not available: %', sqlerrm;
end
$$;

-- What Realtime reads; what is in it is for migrations to say.
create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;
