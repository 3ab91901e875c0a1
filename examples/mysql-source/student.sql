CREATE TABLE student (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(255) NOT NULL);
INSERT INTO student (name) VALUES ('zhangsan'), ('lisi'), ('wangwu'), ('zhaoliu');
