drop trigger workspaces_forget_words on public.workspaces;
drop function tenancy.forget_workspace();
drop function public.search(uuid, text, text[], integer);
drop function
tenancy.search_text(text), tenancy.similar_words(uuid, text[]), tenancy.searchable_tables(text[]),
tenancy.search(uuid, text, text[], integer),
tenancy.search_candidates(uuid, text[], regclass[], text, integer), tenancy.search_query(uuid, text[], text),
tenancy.forget_words(uuid, text[]), tenancy.learn_words(uuid, text), tenancy.index_row(), tenancy.spellings(text),
tenancy.search_document(uuid, text, text), tenancy.search_words(text), tenancy.search_parts(text),
tenancy.search_mark(uuid);
drop table tenancy.search_spellings, tenancy.search_documents;
