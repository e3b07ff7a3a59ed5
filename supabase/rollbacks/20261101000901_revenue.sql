drop view billing.revenue_months;
drop function billing.months_between;
drop function billing.first_of_month;
drop function billing.earned;
drop view billing.revenue_lines;
