-- The role rowhouse_worker stays: other databases of the cluster may use it.
drop schema jobs cascade;
