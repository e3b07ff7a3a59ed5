drop function ops.doctor(), ops.server_findings(), ops.data_findings(), ops.access_findings();
