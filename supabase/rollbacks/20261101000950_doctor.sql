drop function
ops.doctor(), ops.job_findings(), ops.server_findings(), ops.data_findings(), ops.access_findings();
