-- One database for each service; runs once, when the server's volume is new.
create database coordinator;
create database orders;
create database payments;
create database fulfillment;
